-- What share of a class's tiles has at least so much of it, whatever the other rules drop?
-- Grain: one row per class and threshold in steps of 0.05.
with

steps as (

    select step / 20.0 as at_least
    from range(0, 21) as steps (step)

),

shares as (

    select
        class,
        coverage,
        precision,
    from coverages
    where coverage > 0

),

survival as (

    select
        shares.class,
        classes.threshold as now_at,
        steps.at_least,
        -- A threshold of 0.7 is what 0.7 is in the type of the class's column.
        count(*) filter (
            where coverage >= if(precision = 'float32', cast(at_least as float), at_least)
        ) as tiles,
        round(100.0 * tiles / count(*), 1) as percent,
    from shares
    inner join classes on shares.class = classes.name
    cross join steps
    group by shares.class, classes.threshold, steps.at_least
    order by shares.class, steps.at_least

)

select * from survival
