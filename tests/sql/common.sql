-- Slides with kept tiles on both sides, the test tiles here being those with x > 8. Reads `fates`.
-- Grain: one row per slide that stands on both sides.
with

common as (

    select
        slide_id,
        count(*) as tiles,
        count(*) filter (where x > 8) as test_tiles,
    from fates
    where dropped_by is null
    group by slide_id
    having test_tiles > 0

)

select * from common
