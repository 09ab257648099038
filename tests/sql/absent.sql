-- Tiles of several files, a class whose column a file lacks covering none of its tiles, by hand.
-- Grain: one row per tile.
with

files as (

    select *
    from read_parquet($files, union_by_name = true)

),

tiles as (

    select
        slide_id,
        x,
        y,
        coalesce("roi_coverage_Connective-Tissue", 0) as "roi_coverage_Connective-Tissue",
        coalesce("roi_coverage_O'Brien; drop ""x"" --", 0) as "roi_coverage_O'Brien; drop ""x"" --",
        coalesce("roi_coverage_Öl & Fett", 0) as "roi_coverage_Öl & Fett",
    from files

)

select * from tiles
