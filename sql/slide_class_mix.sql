-- Which classes does each slide hold, and how much of the slide is each?
-- Grain: one row per slide and label, kept tiles only.
with

kept as (

    select
        slide_id,
        label,
    from fates
    where dropped_by is null

),

slide_class_mix as (

    select
        slide_id,
        label,
        count(*) as tiles,
        round(100.0 * count(*) / sum(count(*)) over (partition by slide_id), 1) as percent,
    from kept
    group by slide_id, label
    order by slide_id, tiles desc, label

)

select * from slide_class_mix
