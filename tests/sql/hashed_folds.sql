-- The fold of each tile by a hash of its key, written by hand for DuckDB.
-- Reads `thresholds` (slide_id, x, y, label, dropped_by).
-- Grain: one row per tile; a dropped one has no fold.
with

hashed as (

    select
        *,
        cast('0x' || substr(md5(concat_ws('/', $seed, x, y, slide_id)), 1, 7) as bigint) as number,
    from thresholds

),

folds as (

    select
        slide_id,
        x,
        y,
        case when dropped_by is null and label <> $rare then number % $k end as fold,
        case when dropped_by is null and label = $rare then 'rare_class' else dropped_by end
            as dropped_by,
    from hashed

)

select * from folds
