-- Kept tiles of one slide that share area across folds, all compared with all. Reads `fates` and
-- `slides`.
-- Grain: one row per pair of tiles.
with

overlap as (

    select
        one.slide_id,
        one.x,
        one.y,
        one.fold,
        other.x as other_x,
        other.y as other_y,
        other.fold as other_fold,
    from fates as one
    inner join fates as other on one.slide_id = other.slide_id and one.fold <> other.fold
    inner join slides on slides.id = one.slide_id
    where one.dropped_by is null and other.dropped_by is null
        and (one.x, one.y) < (other.x, other.y)
        and one.x < other.x + slides.tile_extent_x and other.x < one.x + slides.tile_extent_x
        and one.y < other.y + slides.tile_extent_y and other.y < one.y + slides.tile_extent_y

)

select * from overlap
