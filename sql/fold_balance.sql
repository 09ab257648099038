-- Is each class spread evenly over the folds?
-- Grain: one row per fold and label, kept tiles only.
with

kept as (

    select
        fold,
        label,
        slide_id,
    from fates
    where dropped_by is null

),

balance as (

    select
        fold,
        label,
        count(*) as tiles,
        count(distinct slide_id) as slides,
        round(100.0 * count(*) / sum(count(*)) over (partition by fold), 1) as percent_of_fold,
        round(100.0 * count(*) / sum(count(*)) over (partition by label), 1) as percent_of_label,
    from kept
    group by fold, label
    order by fold, label

)

select * from balance
