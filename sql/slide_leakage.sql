-- Which slides leak, that is, have kept tiles in more than one fold?
-- Grain: one row per slide that stands in several folds.
with

kept as (

    select
        slide_id,
        fold,
    from fates
    where dropped_by is null

),

leaks as (

    select
        slide_id,
        count(distinct fold) as folds,
        count(*) as tiles,
    from kept
    group by slide_id
    having folds > 1
    order by folds desc, slide_id

)

select * from leaks
