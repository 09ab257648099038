-- The coverages in long form, written by hand.
-- Grain: one row per tile and class.
with

coverages as (

    select slide_id, x, y, 'Connective-Tissue' as class, "roi_coverage_Connective-Tissue" as stored,
    from tiles
    union all
    select slide_id, x, y, 'O''Brien; drop "x" --', "roi_coverage_O'Brien; drop ""x"" --",
    from tiles
    union all
    select slide_id, x, y, 'Öl & Fett', "roi_coverage_Öl & Fett",
    from tiles

),

compared as (

    select
        slide_id,
        x,
        y,
        class,
        cast(stored as double) as coverage,
        case lower(typeof(stored)) when 'float' then 'float32' else 'float64' end as precision,
    from coverages

)

select * from compared
