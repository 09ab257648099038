-- Embeddings that tiles would have under each change of their keys, written by hand. Reads `tiles`
-- and `embeddings` (slide_id, x, y) and `changes`.
-- Grain: one row per change that matches any.
with

rekeyed as (

    select
        changes.change,
        count(*) as matched,
    from changes
    cross join embeddings
    where exists (
        select 1 from tiles
        where tiles.slide_id = changes.slide_id
            and embeddings.slide_id = changes.other_id
            and embeddings.x = changes.plus_x + floor(
                if(changes.swapped, tiles.y, tiles.x) * changes.times / changes.over
            )
            and embeddings.y = changes.plus_y + floor(
                if(changes.swapped, tiles.x, tiles.y) * changes.times / changes.over
            )
    )
    group by changes.change

)

select * from rekeyed
