-- How many tiles each reason drops, written by hand over `fates`.
-- Grain: one row per reason, none left out.
with

reasons as (

    select *
    from (
        values
            (1, 'filtered'),
            (2, 'background'),
            (3, 'dropped_class'),
            (4, 'tissue'),
            (5, 'multi_class'),
            (6, 'class_threshold'),
            (7, 'rare_class'),
            (8, 'no_embedding'),
    ) as listed (step, reason)

),

funnel as (

    select 0 as step, 'input' as reason, count(*) as tiles from fates
    union all
    select reasons.step, reasons.reason, count(fates.slide_id)
    from reasons
    left join fates on fates.dropped_by = reasons.reason
    group by reasons.step, reasons.reason
    union all
    select 9, 'kept', count(*) from fates where dropped_by is null
    order by step

)

select * from funnel
