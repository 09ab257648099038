-- Embeddings that tiles would have under each change of their keys, written by hand. Reads `tiles`
-- and `embeddings` (slide_id, x, y) and `changes`.
-- Grain: one row per change that matches any.
with

matched as (

    select distinct
        changes.change,
        embeddings.slide_id,
        embeddings.x,
        embeddings.y,
    from tiles
    inner join changes on tiles.slide_id = changes.slide_id
    inner join embeddings
        on embeddings.slide_id = changes.other_id
        and embeddings.x - changes.plus_x = floor(
            case when changes.swapped then tiles.y else tiles.x end * changes.times / changes.over
        )
        and embeddings.y - changes.plus_y = floor(
            case when changes.swapped then tiles.x else tiles.y end * changes.times / changes.over
        )

),

rekeyed as (

    select
        change,
        count(*) as matched,
    from matched
    group by change

)

select * from rekeyed
