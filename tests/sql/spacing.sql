-- How far the tiles of a slide lie apart, written by hand. Reads `tiles`.
-- Grain: one row per slide with two tiles in a row or in a column.
with

steps as (

    select
        one.slide_id,
        'x' as direction,
        min(other.x) - one.x as step,
    from tiles as one
    inner join tiles as other
        on one.slide_id = other.slide_id and one.y = other.y and one.x < other.x
    group by one.slide_id, one.x, one.y

    union all

    select
        one.slide_id,
        'y' as direction,
        min(other.y) - one.y as step,
    from tiles as one
    inner join tiles as other
        on one.slide_id = other.slide_id and one.x = other.x and one.y < other.y
    group by one.slide_id, one.x, one.y

),

counted as (

    select
        slide_id,
        direction,
        step,
        count(*) as tiles,
    from steps
    group by all

),

commonest as (

    select
        slide_id,
        direction,
        arg_min(step, (-tiles, step)) as step,
    from counted
    group by all

),

spacing as (

    select
        slide_id as id,
        coalesce(min(step) filter (where direction = 'x'), min(step)) as tile_extent_x,
        coalesce(min(step) filter (where direction = 'y'), min(step)) as tile_extent_y,
    from commonest
    group by slide_id

)

select * from spacing
