-- Which tiles would a small change of their class's threshold keep or drop (within 0.05 of it)?
-- Grain: one row per tile near the threshold, the nearest first.
with

own as (

    select
        fates.slide_id,
        fates.x,
        fates.y,
        fates.dominant as class,
        coverages.coverage,
        classes.threshold,
        fates.dropped_by is null as kept,
        -- A threshold of 0.7 is what 0.7 is in the type of the class's column.
        if(precision = 'float32', cast(threshold as float), threshold) as least,
        round(coverages.coverage - least, 4) as margin,
    from fates
    inner join coverages
        on fates.slide_id = coverages.slide_id
        and fates.x = coverages.x
        and fates.y = coverages.y
        and fates.dominant = coverages.class
    inner join classes on fates.dominant = classes.name
    where fates.dropped_by is null or fates.dropped_by = 'class_threshold'

),

near_threshold as (

    select * exclude (least)
    from own
    where abs(margin) <= 0.05
    order by abs(margin), slide_id, x, y

)

select * from near_threshold
