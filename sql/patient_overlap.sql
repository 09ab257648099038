-- Which patients (slides, where the tiles know no patient) are both trained and tested on?
-- Grain: one row per patient or slide with kept tiles among training and test tiles.
with

-- A row as JSON: asked for a column that is not there, it answers null.
trained as (

    select
        coalesce(json_extract_string(to_json(fates), '$.patient_id'), slide_id) as patient,
        count(*) as training_tiles,
    from fates
    where dropped_by is null
    group by patient

),

tested as (

    select
        coalesce(json_extract_string(to_json(test_fates), '$.patient_id'), slide_id) as patient,
        count(*) as test_tiles,
    from test_fates
    where dropped_by is null
    group by patient

),

overlap as (

    select
        trained.patient,
        trained.training_tiles,
        tested.test_tiles,
    from trained
    inner join tested on trained.patient = tested.patient
    order by trained.patient

)

select * from overlap
