-- How much of each slide each class is, written by hand. Reads `fates`, `predictions`, `slides`.
-- Grain: one row per source, slide and class.
with

said as (

    select
        'fates' as source,
        slide_id,
        label as class,
    from fates
    where dropped_by is null

    union all

    select
        run as source,
        slide_id,
        predicted as class,
    from predictions

),

counted as (

    select
        source,
        slide_id,
        class,
        count(*) as tiles,
    from said
    group by source, slide_id, class

),

areas as (

    select
        id,
        least(tile_extent_x, coalesce(stride_x, tile_extent_x)) * mpp_x
        * tile_extent_y * mpp_y / 1e6 as mm2,
    from slides

),

slide_classes as (

    select
        counted.source,
        counted.slide_id,
        counted.class,
        counted.tiles,
        counted.tiles / sum(counted.tiles) over of_slide as share,
        counted.tiles * areas.mm2 as mm2,
    from counted
    left join areas on counted.slide_id = areas.id
    window of_slide as (partition by counted.source, counted.slide_id)

)

select * from slide_classes
