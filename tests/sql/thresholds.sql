-- The first reason that drops each tile, under the rule `dominant`, written by hand.
-- Grain: one row per tile; null for a survivor.
with

shares as (

    select
        slide_id,
        x,
        y,
        "roi_coverage_Connective-Tissue" as a,
        "roi_coverage_O'Brien; drop ""x"" --" as b,
        "roi_coverage_Öl & Fett" as c,
    from tiles

),

fates as (

    select
        slide_id,
        x,
        y,
        case
            when a = 0 and b = 0 and c = 0 then 'background'
            when a + b + c < $tissue_prop_min then 'tissue'
            when $single_class and (a > 0)::int + (b > 0)::int + (c > 0)::int > 1 then 'multi_class'
            when a >= b and a >= c and a >= $a then null
            when b > a and b >= c and b >= $b then null
            when c > a and c > b and c >= $c then null
            else 'class_threshold'
        end as dropped_by,
    from shares

)

select * from fates
