//! Who makes room for whom, where memory is limited.

use super::catalogue::Key;

/// A loaded model that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Occupant {
    pub(super) key: Key,
    /// What would be free.
    pub(super) bytes: u64,
    /// When it was last asked for, as a count.
    pub(super) used: u64,
    /// Whether it has requests at this moment. They are finished in any case, but that takes a while.
    pub(super) busy: bool,
}

/// It doesn't fit, whoever goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) needed: u64,
    /// What would stay.
    pub(super) kept: u64,
    pub(super) maximum: u64,
}

/// Who must go so that `needed` bytes more fit beside the `kept` ones that can't go: idle ones
/// before busy ones, and among these the one first that was not used for longest. As few as do.
pub(super) fn make_room(
    maximum: u64,
    kept: u64,
    needed: u64,
    mut occupants: Vec<Occupant>,
) -> Result<Vec<Key>, TooLarge> {
    if kept.saturating_add(needed) > maximum {
        return Err(TooLarge { needed, kept, maximum });
    }
    let mut total = occupants.iter().fold(kept.saturating_add(needed), |sum, one| sum.saturating_add(one.bytes));
    occupants.sort_by_key(|occupant| (occupant.busy, occupant.used));
    let mut leaving = Vec::new();
    for occupant in occupants {
        if total <= maximum {
            break;
        }
        // What takes nothing gives nothing.
        if occupant.bytes > 0 {
            total = total.saturating_sub(occupant.bytes);
            leaving.push(occupant.key);
        }
    }
    Ok(leaving)
}

/// A number of bytes for people.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn occupants() -> impl Strategy<Value = Vec<Occupant>> {
        proptest::collection::vec((0u64..50, any::<bool>()), 0..12).prop_map(|list| {
            let occupant = |(index, (bytes, busy)): (usize, (u64, bool))| Occupant {
                key: Key(index as u64),
                bytes,
                used: (index as u64 * 7) % 12,
                busy,
            };
            list.into_iter().enumerate().map(occupant).collect()
        })
    }

    proptest! {
        #[test]
        fn room_is_made_by_as_few_as_do_in_order(
            occupants in occupants(), maximum in 0u64..300, kept in 0u64..100, needed in 0u64..100,
        ) {
            let bytes = |keys: &[Key]| occupants.iter().filter(|one| keys.contains(&one.key)).map(|one| one.bytes).sum::<u64>();
            let all: Vec<Key> = occupants.iter().map(|one| one.key).collect();
            match make_room(maximum, kept, needed, occupants.clone()) {
                Err(_) => prop_assert!(kept + needed > maximum),
                Ok(leaving) => {
                    let left = |gone: &[Key]| kept + needed + bytes(&all) - bytes(gone);
                    prop_assert!(left(&leaving) <= maximum);
                    // Without the last of them it would not fit.
                    if let Some((_, earlier)) = leaving.split_last() {
                        prop_assert!(left(earlier) > maximum);
                    }
                    let rank = |key: &Key| {
                        let one = occupants.iter().find(|one| one.key == *key).unwrap();
                        (one.busy, one.used)
                    };
                    prop_assert!(leaving.is_sorted_by_key(rank));
                    let last = leaving.last().map(rank);
                    let stays = |one: &&Occupant| !leaving.contains(&one.key) && one.bytes > 0;
                    prop_assert!(occupants.iter().filter(stays).all(|one| last.is_none_or(|last| (one.busy, one.used) > last)));
                }
            }
        }
    }

    #[test]
    fn sizes_are_told_in_words() {
        assert_eq!(
            [0, 1023, 1536, 5 << 20, 3 << 30].map(human).join(", "),
            "0 bytes, 1023 bytes, 1.5 KiB, 5.0 MiB, 3.0 GiB"
        );
    }
}
