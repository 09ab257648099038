-- The first reason that drops each tile, under the rule `dominant`, written by hand.
-- Grain: one row per tile; null for a survivor.
with

stored as (

    select
        slide_id,
        x,
        y,
        "roi_coverage_Connective-Tissue" as a,
        "roi_coverage_O'Brien; drop ""x"" --" as b,
        "roi_coverage_Öl & Fett" as c,
    from tiles

),

shares as (

    select
        slide_id,
        x,
        y,
        cast(a as double) as a,
        cast(b as double) as b,
        cast(c as double) as c,
        -- A threshold of 0.7 against a float is that float's 0.7.
        case lower(typeof(a)) when 'float' then cast($a as float) else $a end as least_a,
        case lower(typeof(b)) when 'float' then cast($b as float) else $b end as least_b,
        case lower(typeof(c)) when 'float' then cast($c as float) else $c end as least_c,
        -- One ulp of the coarsest type, and one of a double for each of the three.
        case
            when lower(concat(typeof(a), typeof(b), typeof(c))) like '%float%' then pow(2.0, -23)
            else pow(2.0, -52)
        end + 3 * pow(2.0, -52) as slack,
    from stored

),

fates as (

    select
        slide_id,
        x,
        y,
        case
            when a = 0 and b = 0 and c = 0 then 'background'
            when a + b + c < $tissue_prop_min * (1 - slack) then 'tissue'
            when $single_class and (a > 0)::int + (b > 0)::int + (c > 0)::int > 1 then 'multi_class'
            when a >= b and a >= c and a >= least_a then null
            when b > a and b >= c and b >= least_b then null
            when c > a and c > b and c >= least_c then null
            else 'class_threshold'
        end as dropped_by,
    from shares

)

select * from fates
