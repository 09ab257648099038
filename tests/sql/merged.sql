-- Labels and reasons where one class takes another in and a third is dropped, written by hand.
-- Grain: one row per tile.
with

stored as (

    select
        slide_id,
        x,
        y,
        "roi_coverage_Connective-Tissue" as a,
        "roi_coverage_O'Brien; drop ""x"" --" as b,
        "roi_coverage_Öl & Fett" as c,
        case
            when lower(concat(typeof(a), typeof(b), typeof(c))) like '%float%' then pow(2.0, -23)
            else pow(2.0, -52)
        end as ulp,
    from tiles

),

shares as (

    select
        slide_id,
        x,
        y,
        cast(b as double) as brien,
        least(cast(a as double) + cast(c as double), 1.0) as fat,
        brien + fat as tissue_prop,
        $tissue_prop_min * (1 - ulp - 3 * pow(2.0, -52)) as least_tissue,
        -- A sum of two reaches its threshold as the sum of all reaches its own.
        $c * (1 - ulp - 2 * pow(2.0, -52)) as least_fat,
    from stored

),

labels as (

    select
        slide_id,
        x,
        y,
        tissue_prop,
        case
            when brien = 0 and fat = 0 then 'background'
            when brien >= fat then 'O''Brien; drop "x" --'
            else 'Öl & Fett'
        end as label,
        case when fat > brien then 0 end as target,
        case
            when brien = 0 and fat = 0 then 'background'
            when brien >= fat then 'dropped_class'
            when tissue_prop < least_tissue then 'tissue'
            when $single_class and brien > 0 then 'multi_class'
            when fat < least_fat then 'class_threshold'
        end as dropped_by,
    from shares

)

select * from labels
