-- Tiles of each slide, and those without an embedding, written by hand. Reads `tiles` and
-- `embeddings` (slide_id, x, y).
-- Grain: one row per slide of the tiles.
with

matches as (

    select
        slide_id,
        count(*) as tiles,
        count(*) filter (
            where (slide_id, x, y) not in (select (slide_id, x, y) from embeddings)
        ) as missing,
    from tiles
    group by slide_id

)

select * from matches
