-- The one fate of each tile, once folds are assigned and embeddings are joined, written by hand.
-- Reads `thresholds` (slide_id, x, y, dropped_by), `assigned` (with fold) and `embeddings`.
-- Grain: one row per tile.
with

fates as (

    select
        thresholds.slide_id,
        thresholds.x,
        thresholds.y,
        case when thresholds.dropped_by is null then assigned.fold end as fold,
        case
            when thresholds.dropped_by is not null then thresholds.dropped_by
            when assigned.fold is null then 'rare_class'
            when not exists (
                select 1 from embeddings
                where embeddings.slide_id = thresholds.slide_id
                    and embeddings.x = thresholds.x
                    and embeddings.y = thresholds.y
            ) then 'no_embedding'
        end as dropped_by,
    from thresholds
    left join assigned
        on thresholds.slide_id = assigned.slide_id
        and thresholds.x = assigned.x
        and thresholds.y = assigned.y

)

select * from fates
