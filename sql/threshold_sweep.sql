-- How many tiles of a dominant class would survive each threshold, all other rules as they are?
-- Grain: one row per class and threshold in steps of 0.1.
with

steps as (

    select step / 10.0 as at_least
    from range(0, 11) as steps (step)

),

dominant as (

    select
        fates.dominant as class,
        coverages.coverage,
        coverages.precision,
    from fates
    inner join coverages
        on fates.slide_id = coverages.slide_id
        and fates.x = coverages.x
        and fates.y = coverages.y
        and fates.dominant = coverages.class
    where fates.dropped_by is null or fates.dropped_by = 'class_threshold'

),

sweep as (

    select
        dominant.class,
        classes.threshold as now_at,
        steps.at_least,
        -- A threshold of 0.7 is what 0.7 is in the type of the class's column.
        count(*) filter (
            where coverage >= if(precision = 'float32', cast(at_least as float), at_least)
        ) as tiles,
        round(100.0 * tiles / count(*), 1) as percent,
    from dominant
    inner join classes on dominant.class = classes.name
    cross join steps
    group by dominant.class, classes.threshold, steps.at_least
    order by dominant.class, steps.at_least

)

select * from sweep
