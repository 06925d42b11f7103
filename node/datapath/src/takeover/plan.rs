//! What is to be done with each map: pure, so that nothing is touched before all of it is decided.

use heddle_abi::{ABI_VERSION, Content, MapLayout};
use std::collections::BTreeMap;

/// A pinned map of some version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PinnedMap {
    pub(super) layout: u32,
    /// Entries it can hold.
    pub(super) room: u32,
    /// The kernel's number of it.
    pub(super) id: u32,
}

/// What a version left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Version {
    pub(super) number: u32,
    pub(super) maps: BTreeMap<String, PinnedMap>,
}

/// What becomes of a map of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// It is there.
    Keep,
    /// The other version's very map is this version's, too.
    Share { from: u32 },
    /// A new map, or one that an end in the middle left, filled from the other version's.
    Fill { from: u32, layout: u32 },
    /// A new map of another size, filled from this version's, and from the other one's if that was not done with.
    Resize { other: Option<(u32, u32)> },
    /// A new map.
    Empty,
}

/// Why another version cannot be taken over from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) version: u32,
    pub(super) reason: String,
}

/// Decides on every map. `others` are in the order in which they are to be taken from.
pub(super) fn plan(
    layouts: &'static [MapLayout],
    own: &Version,
    others: &[Version],
    wished: impl Fn(&str) -> Option<u32>,
    can_fill: impl Fn(&str, u32, u32) -> bool,
) -> Result<Vec<(&'static MapLayout, Action)>, Refusal> {
    let one = |map: &'static MapLayout| {
        let action = decide(map, own, others, wished(map.name), &can_fill)?;
        Ok((map, action))
    };
    layouts.iter().map(one).collect()
}

/// A map of another version, and which version that is.
type Theirs = (u32, PinnedMap);

/// The first other version's map of a name.
fn theirs(map: &str, others: &[Version]) -> Option<Theirs> {
    let find = |it: &Version| Some((it.number, *it.maps.get(map)?));
    others.iter().find_map(find)
}

/// The maps whose content this version's map is to have: its own, and the other version's. The latter also where
/// there is an own one already: left by a take-over that was interrupted, or prepared by the newer version.
pub(super) fn sources(
    map: &MapLayout,
    own: &Version,
    others: &[Version],
    can_fill: impl Fn(&str, u32, u32) -> bool,
) -> (Option<PinnedMap>, Option<Theirs>) {
    let ours = own.maps.get(map.name).copied();
    let theirs = theirs(map.name, others).filter(|(_, it)| {
        ours.is_none_or(|ours| it.id != ours.id) && can_fill(map.name, it.layout, map.layout)
    });
    (ours, theirs)
}

fn decide(
    map: &MapLayout,
    own: &Version,
    others: &[Version],
    wished: Option<u32>,
    can_fill: impl Fn(&str, u32, u32) -> bool,
) -> Result<Action, Refusal> {
    let fillable = |layout| can_fill(map.name, layout, map.layout);
    let theirs = theirs(map.name, others);
    if let Some(ours) = own.maps.get(map.name) {
        if ours.layout != map.layout {
            return Err(Refusal {
                version: own.number,
                reason: format!(
                    "its map {} has layout {} and not {}: it is of another build that has the same version",
                    map.name, ours.layout, map.layout
                ),
            });
        }
        let (_, source) = sources(map, own, others, &can_fill);
        let source = source.map(|(from, it)| (from, it.layout));
        let is_of_other_size =
            wished.is_some_and(|room| room != ours.room) && fillable(ours.layout);
        return Ok(match source {
            _ if is_of_other_size && (source.is_some() || theirs.is_none()) => {
                Action::Resize { other: source }
            }
            Some((from, layout)) => Action::Fill { from, layout },
            None => Action::Keep,
        });
    }
    let Some((from, theirs)) = theirs else {
        let gone = others.iter().find(|it| it.number >= map.since);
        return match gone {
            Some(other) if map.content == Content::Kept => Err(Refusal {
                version: other.number,
                reason: format!("it has no map {}", map.name),
            }),
            _ => Ok(Action::Empty),
        };
    };
    let same_size = wished.is_none_or(|room| room == theirs.room);
    if theirs.layout == map.layout && (same_size || !fillable(theirs.layout)) {
        return Ok(Action::Share { from });
    }
    if fillable(theirs.layout) {
        return Ok(Action::Fill {
            from,
            layout: theirs.layout,
        });
    }
    match map.content {
        Content::Transient => Ok(Action::Empty),
        Content::Kept => Err(Refusal {
            version: from,
            reason: format!(
                "its map {} has layout {}, and this version knows only {}",
                map.name, theirs.layout, map.layout
            ),
        }),
    }
}

/// What an operator can do about a version that is not taken over from.
pub(super) fn help(version: u32) -> String {
    let way = if version > ABI_VERSION {
        format!(
            "let the newer version prepare it (`heddle agent --config FILE --prepare-downgrade {ABI_VERSION}`), or start that one again"
        )
    } else {
        "upgrade by way of a version in between".to_owned()
    };
    format!("{way}, or drain the node and remove its pin directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn map(name: &'static str, layout: u32, since: u32, content: Content) -> MapLayout {
        MapLayout {
            name,
            layout,
            since,
            content,
        }
    }

    static LAYOUTS: [MapLayout; 4] = [
        map("A", 1, 2, Content::Kept),
        map("B", 2, 2, Content::Kept),
        map("C", 2, 2, Content::Transient),
        map("D", 1, 3, Content::Kept),
    ];

    fn version(number: u32, maps: &[(&str, u32, u32)]) -> Version {
        let maps = maps.iter().map(|(name, layout, id)| {
            let map = PinnedMap {
                layout: *layout,
                room: 10,
                id: *id,
            };
            ((*name).to_owned(), map)
        });
        Version {
            number,
            maps: maps.collect(),
        }
    }

    fn actions(
        own: &Version,
        others: &[Version],
        wished: Option<u32>,
        can_fill: &[(u32, u32)],
    ) -> Result<Vec<Action>, Refusal> {
        plan(
            &LAYOUTS,
            own,
            others,
            |name| wished.filter(|_| name == "B"),
            |name, from, to| name == "B" && can_fill.contains(&(from, to)),
        )
        .map(|plan| plan.into_iter().map(|(_, action)| action).collect())
    }

    #[test]
    fn equal_layouts_are_shared_and_others_filled_emptied_or_refused() {
        let (none, old) = (
            version(3, &[]),
            version(2, &[("A", 1, 1), ("B", 1, 2), ("C", 1, 3)]),
        );
        let fill = Action::Fill { from: 2, layout: 1 };
        let share = Action::Share { from: 2 };
        assert_eq!(
            actions(&none, std::slice::from_ref(&old), None, &[(1, 2)]),
            Ok(vec![share, fill, Action::Empty, Action::Empty])
        );
        let refused = actions(&none, &[old], None, &[]).unwrap_err();
        assert_eq!(refused.version, 2);
        assert!(
            refused.reason.contains("map B has layout 1"),
            "{}",
            refused.reason
        );
        // From a newer version whose map D is gone.
        let newer = version(4, &[("A", 1, 1), ("B", 2, 2)]);
        let refused = actions(&none, &[newer], None, &[]).unwrap_err();
        assert!(refused.reason.contains("no map D"), "{}", refused.reason);
    }

    #[test]
    fn what_is_there_is_kept_or_filled_again() {
        let all = [("A", 1, 1), ("B", 2, 2), ("C", 2, 3), ("D", 1, 4)];
        let own = version(3, &all);
        assert_eq!(actions(&own, &[], None, &[]), Ok(vec![Action::Keep; 4]));
        let mut filled = vec![Action::Keep; 4];
        filled[1] = Action::Resize { other: None };
        assert_eq!(actions(&own, &[], Some(20), &[(2, 2)]), Ok(filled.clone()));
        // A take-over that was interrupted after B had been made.
        filled[1] = Action::Fill { from: 2, layout: 1 };
        let old = version(2, &[("A", 1, 1), ("B", 1, 9)]);
        let old = [old];
        assert_eq!(actions(&own, &old, None, &[(1, 2)]), Ok(filled.clone()));
        assert_eq!(
            actions(&own, &old, Some(10), &[(1, 2), (2, 2)]),
            Ok(filled.clone())
        );
        // And now it is to have another size.
        filled[1] = Action::Resize {
            other: Some((2, 1)),
        };
        assert_eq!(actions(&own, &old, Some(20), &[(1, 2), (2, 2)]), Ok(filled));
        // Prepared by a newer version whose layout nobody here knows.
        let newer = version(4, &[("A", 1, 1), ("B", 7, 9)]);
        assert_eq!(
            actions(&own, &[newer], None, &[]),
            Ok(vec![Action::Keep; 4])
        );
        let other_build = version(3, &[("A", 7, 1)]);
        assert!(actions(&other_build, &[], None, &[]).is_err());
    }
}
