-- Which slides have tiles that pass every rule and yet have no embedding?
-- Grain: one row per slide with at least one such tile.
with

survivors as (

    select
        slide_id,
        dropped_by = 'no_embedding' as missing,
    from fates
    where dropped_by is null or dropped_by = 'no_embedding'

),

slides_missing as (

    select
        slide_id,
        count(*) filter (where missing) as without_embedding,
        count(*) as tiles,
        round(100.0 * without_embedding / tiles, 1) as percent,
    from survivors
    group by slide_id
    having without_embedding > 0
    order by without_embedding desc, slide_id

)

select * from slides_missing
