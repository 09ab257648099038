-- What each slide's tiles span and how far apart they are, all compared with all, written by hand.
-- Reads `tiles` (slide_id, x, y).
-- Grain: one row per slide.
with

extents as (

    select
        tiles.slide_id,
        min(tiles.x) as min_x,
        max(tiles.x) as max_x,
        min(other.x - tiles.x) filter (where other.x > tiles.x) as step_x,
        min(tiles.y) as min_y,
        max(tiles.y) as max_y,
        min(other.y - tiles.y) filter (where other.y > tiles.y) as step_y,
    from tiles
    inner join tiles as other on tiles.slide_id = other.slide_id
    group by tiles.slide_id

)

select * from extents
