-- On which side of the split of fold $fold does each tile stand, written by hand over `fates`.
-- Grain: one row per tile; null for a dropped one.
with

sides as (

    select
        slide_id,
        x,
        y,
        case
            when dropped_by is not null then null
            when fold = $fold then 'validation'
            else 'train'
        end as split,
    from fates

)

select * from sides
