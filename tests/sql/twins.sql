-- Tiles whose cell (here: the target) stands in several folds, written by hand. Reads `fates`.
-- Grain: one row per tile.
with

shared as (

    select target
    from fates
    group by target
    having count(distinct fold) > 1

),

twins as (

    select
        slide_id,
        x,
        y,
        cast(fold as text) as side,
        target as cell,
    from fates
    where target in (select target from shared)

)

select * from twins
