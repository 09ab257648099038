-- Tiles of each slide, and those without an embedding, written by hand. Reads `tiles` and
-- `embeddings` (slide_id, x, y).
-- Grain: one row per slide of the tiles.
with

matches as (

    select
        tiles.slide_id,
        count(*) as tiles,
        count(*) filter (where embeddings.slide_id is null) as missing,
    from tiles
    left join embeddings
        on tiles.slide_id = embeddings.slide_id
        and tiles.x = embeddings.x
        and tiles.y = embeddings.y
    group by tiles.slide_id

)

select * from matches
