-- Which pairs of slides look like one scan twice: tiles at the same place with the same coverages?
-- Grain: one row per pair of slides that agree in a tenth or more of the smaller one's tiles.
with

tissue as (

    select
        slide_id,
        x,
        y,
        list(coverage order by class) as shares,
    from coverages
    group by slide_id, x, y
    having sum(coverage) > 0

),

sizes as (

    select
        slide_id,
        count(*) as tiles,
    from tissue
    group by slide_id

),

pairs as (

    select
        one.slide_id as slide,
        other.slide_id as other_slide,
        count(*) as same_tiles,
    from tissue as one
    inner join tissue as other
        on one.x = other.x
        and one.y = other.y
        and one.shares = other.shares
        and one.slide_id < other.slide_id
    group by one.slide_id, other.slide_id

),

duplicates as (

    select
        pairs.slide,
        pairs.other_slide,
        pairs.same_tiles,
        round(100.0 * same_tiles / least(small.tiles, large.tiles), 1) as percent,
    from pairs
    inner join sizes as small on pairs.slide = small.slide_id
    inner join sizes as large on pairs.other_slide = large.slide_id
    where same_tiles >= 0.1 * least(small.tiles, large.tiles)
    order by percent desc, slide, other_slide

)

select * from duplicates
