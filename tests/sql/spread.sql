-- Slides with kept tiles in several folds, written by hand. Reads `fates`.
-- Grain: one row per slide that leaks.
with

spread as (

    select
        slide_id,
        count(distinct fold) as folds,
        count(*) as tiles,
    from fates
    where dropped_by is null and slide_id is not null
    group by slide_id
    having count(distinct fold) > 1

)

select * from spread
