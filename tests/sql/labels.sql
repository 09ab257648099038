-- The label of each tile under the rule `dominant`, written by hand.
-- Grain: one row per tile.
with

sums as (

    select
        slide_id,
        x,
        y,
        cast("roi_coverage_Connective-Tissue" as double) as a,
        cast("roi_coverage_O'Brien; drop ""x"" --" as double) as b,
        cast("roi_coverage_Öl & Fett" as double) as c,
        a + b + c as tissue_prop,
        greatest(a, b, c) as most,
    from tiles

),

labels as (

    select
        slide_id,
        x,
        y,
        tissue_prop,
        case
            when most = 0 then null
            when a = most then 'Connective-Tissue'
            when b = most then 'O''Brien; drop "x" --'
            else 'Öl & Fett'
        end as dominant,
        coalesce(dominant, 'background') as label,
        case
            when most = 0 then null
            when a = most then 2
            when b = most then 0
            else 1
        end as target,
    from sums

)

select * from labels
