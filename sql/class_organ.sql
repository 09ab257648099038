-- How are the classes spread over the organs (a column `organ` of the tiles, if they have one)?
-- Grain: one row per organ and label; organ is null where the tiles do not tell it.
with

tiles_as_rows as (

    select
        label,
        slide_id,
        dropped_by is null as kept,
        -- A row as JSON: asked for a column that is not there, it answers null.
        json_extract_string(to_json(fates), '$.organ') as organ,
    from fates

),

class_organ as (

    select
        organ,
        label,
        count(*) as tiles,
        count(*) filter (where kept) as kept,
        count(distinct slide_id) as slides,
        round(100.0 * count(*) / sum(count(*)) over (partition by organ), 1) as percent_of_organ,
    from tiles_as_rows
    group by organ, label
    order by organ, tiles desc, label

)

select * from class_organ
