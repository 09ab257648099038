-- Which slides have kept tiles on both sides of the split of fold $fold, written by hand.
-- Grain: one row per shared slide.
with

sides as (

    select
        slide_id,
        count(*) filter (where fold <> $fold) as train,
        count(*) filter (where fold = $fold) as validation,
    from fates
    where dropped_by is null and slide_id is not null
    group by slide_id

),

shared as (

    select
        slide_id,
        train,
        validation,
    from sides
    where train > 0 and validation > 0
    order by slide_id

)

select * from shared
