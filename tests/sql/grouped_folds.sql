-- The fold of each tile where groups are assigned, written by hand.
-- Reads `thresholds` (slide_id, x, y, label, dropped_by) and `assigned_groups` (slide_id, fold).
-- Grain: one row per tile; a dropped one has no fold.
with

survivors as (

    select
        thresholds.*,
        assigned_groups.fold,
    from thresholds
    inner join assigned_groups on thresholds.slide_id = assigned_groups.slide_id
    where thresholds.dropped_by is null and thresholds.label <> $rare

),

folds as (

    select
        thresholds.slide_id,
        thresholds.x,
        thresholds.y,
        survivors.fold,
        case
            when thresholds.dropped_by is not null then thresholds.dropped_by
            when survivors.fold is null then 'rare_class'
        end as dropped_by,
    from thresholds
    left join survivors
        on thresholds.slide_id = survivors.slide_id
        and thresholds.x = survivors.x
        and thresholds.y = survivors.y

)

select * from folds
