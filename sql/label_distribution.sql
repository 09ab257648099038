-- How many tiles, of how many slides, does each label have, and how many of them are kept?
-- Grain: one row per label.
with

tiles as (

    select
        label,
        slide_id,
        dropped_by is null as kept,
    from fates

),

labels as (

    select
        label,
        count(*) as tiles,
        count(*) filter (where kept) as kept,
        count(distinct slide_id) as slides,
        round(100.0 * count(*) / sum(count(*)) over (), 1) as percent,
    from tiles
    group by label
    order by tiles desc, label

)

select * from labels
