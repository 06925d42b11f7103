//! Areas and regions: what terms and rules say of addresses, each known once.

use crate::{
    CidrBlock, CidrGroupRef, Peer, Rule, ServiceRef, facts::PrefixSet, link::SpecNo, peer::Peers,
};
use heddle_model::Selector;
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// One term about addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Area {
    Block(CidrBlock),
    Group {
        by: CidrGroupRef,
        except: Vec<IpNet>,
    },
    /// The addresses of services without selectors.
    Services(ServiceRef),
    /// The addresses of nodes with these labels.
    Nodes(Selector),
}

impl Area {
    /// What a term says of addresses, in one form for all that mean the same.
    pub(crate) fn of(term: &Peer) -> Option<Self> {
        let holes = |except: &[IpNet]| {
            let mut holes: Vec<IpNet> = except.iter().map(IpNet::trunc).collect();
            holes.sort_unstable();
            holes.dedup();
            holes
        };
        match term {
            Peer::Cidr(cidr) => Some(Self::Block(CidrBlock {
                block: cidr.block.trunc(),
                except: holes(&cidr.except),
                in_cluster: cidr.in_cluster,
            })),
            Peer::CidrGroup { by, except } => Some(Self::Group {
                by: by.clone(),
                except: holes(except),
            }),
            Peer::Services(services) => Some(Self::Services(services.clone())),
            Peer::Nodes(selector) => Some(Self::Nodes(selector.clone())),
            Peer::Endpoints(_) | Peer::Entity(_) => None,
        }
    }

    /// The areas of a rule, sorted.
    pub(crate) fn all_of(rule: &Rule) -> Vec<Self> {
        let Peers::Terms(terms) = &rule.peers else {
            return Vec::new();
        };
        let mut areas: Vec<Self> = terms.iter().filter_map(Self::of).collect();
        areas.sort_unstable();
        areas.dedup();
        areas
    }

    fn holes(&self) -> &[IpNet] {
        match self {
            Self::Block(cidr) => &cidr.except,
            Self::Group { except, .. } => except,
            Self::Services(_) | Self::Nodes(_) => &[],
        }
    }

    pub(crate) const fn in_cluster(&self) -> bool {
        matches!(
            self,
            Self::Nodes(_)
                | Self::Block(CidrBlock {
                    in_cluster: true,
                    ..
                })
        )
    }
}

/// An area in use.
pub(crate) type AreaNo = u32;
/// A region in use: the areas of one rule, shared by all rules that name the same.
pub(crate) type RegionNo = u32;

#[derive(Clone, Debug)]
pub(super) struct AreaSlot {
    pub(super) area: Arc<Area>,
    /// Its blocks.
    blocks: Vec<Arc<PrefixSet>>,
    holes: PrefixSet,
    /// The regions it is part of, sorted.
    pub(super) regions: Vec<RegionNo>,
}

impl AreaSlot {
    /// True when it selects all addresses of `prefix`, which no boundary of it cuts.
    pub(super) fn covers(&self, prefix: IpNet, in_cluster: bool) -> bool {
        (self.area.in_cluster() || !in_cluster)
            && self.blocks.iter().any(|set| set.covers(prefix))
            && !self.holes.covers(prefix)
    }

    /// Its blocks, each once.
    pub(super) fn blocks(&self) -> Vec<IpNet> {
        let mut blocks: Vec<IpNet> = self.blocks.iter().flat_map(|set| set.iter()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    pub(super) fn holes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.holes.iter()
    }
}

#[derive(Clone, Debug)]
pub(super) struct RegionSlot {
    pub(super) areas: Arc<[AreaNo]>,
    pub(super) users: BTreeMap<SpecNo, u32>,
}

/// The areas and regions in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Areas {
    numbers: HashMap<Arc<Area>, AreaNo>,
    slots: Vec<Option<AreaSlot>>,
    free: Vec<AreaNo>,
    region_numbers: HashMap<Arc<[AreaNo]>, RegionNo>,
    regions: Vec<Option<RegionSlot>>,
    free_regions: Vec<RegionNo>,
}

impl Areas {
    /// The number of an area, which is new when the flag says so.
    pub(super) fn area(
        &mut self,
        area: Area,
        blocks: impl FnOnce(&Area) -> Vec<Arc<PrefixSet>>,
    ) -> (AreaNo, bool) {
        if let Some(number) = self.numbers.get(&area) {
            return (*number, false);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // As many areas as numbers do not fit into memory.
            (self.slots.len() - 1) as AreaNo
        });
        let area = Arc::new(area);
        self.slots[number as usize] = Some(AreaSlot {
            blocks: blocks(&area),
            holes: PrefixSet::new(area.holes().iter().copied()),
            regions: Vec::new(),
            area: Arc::clone(&area),
        });
        self.numbers.insert(area, number);
        (number, true)
    }

    /// The region of these areas, sorted; new when the flag says so.
    pub(super) fn region(&mut self, areas: Vec<AreaNo>) -> (RegionNo, bool) {
        if let Some(number) = self.region_numbers.get(areas.as_slice()) {
            return (*number, false);
        }
        let number = self.free_regions.pop().unwrap_or_else(|| {
            self.regions.push(None);
            (self.regions.len() - 1) as RegionNo
        });
        let areas: Arc<[AreaNo]> = areas.into();
        for area in areas.iter() {
            if let Some(slot) = self.slot_mut(*area)
                && let Err(at) = slot.regions.binary_search(&number)
            {
                slot.regions.insert(at, number);
            }
        }
        self.region_numbers.insert(Arc::clone(&areas), number);
        self.regions[number as usize] = Some(RegionSlot {
            areas,
            users: BTreeMap::new(),
        });
        (number, true)
    }

    /// Forgets a region; what it leaves without a region is forgotten too, and returned.
    pub(super) fn drop_region(&mut self, number: RegionNo) -> Vec<(AreaNo, AreaSlot)> {
        let Some(region) = self.regions.get_mut(number as usize).and_then(Option::take) else {
            return Vec::new();
        };
        self.region_numbers.remove(&region.areas);
        self.free_regions.push(number);
        let mut gone = Vec::new();
        for area in region.areas.iter() {
            let Some(slot) = self.slot_mut(*area) else {
                continue;
            };
            slot.regions.retain(|known| *known != number);
            if slot.regions.is_empty()
                && let Some(slot) = self.slots[*area as usize].take()
            {
                self.numbers.remove(&slot.area);
                self.free.push(*area);
                gone.push((*area, slot));
            }
        }
        gone
    }

    /// Replaces an area's blocks; returns those that come and those that go.
    pub(super) fn set_blocks(
        &mut self,
        number: AreaNo,
        blocks: Vec<Arc<PrefixSet>>,
    ) -> (Vec<IpNet>, Vec<IpNet>) {
        let Some(slot) = self.slot_mut(number) else {
            return (Vec::new(), Vec::new());
        };
        let before = std::mem::replace(&mut slot.blocks, blocks);
        let missing = |from: &[Arc<PrefixSet>], other: &[Arc<PrefixSet>]| {
            let mut found: Vec<IpNet> = from
                .iter()
                .filter(|set| !other.iter().any(|known| Arc::ptr_eq(known, set)))
                .flat_map(|set| set.iter())
                .filter(|prefix| !other.iter().any(|set| set.contains(*prefix)))
                .collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        let (come, go) = (
            missing(&slot.blocks, &before),
            missing(&before, &slot.blocks),
        );
        (come, go)
    }

    pub(super) fn slot(&self, number: AreaNo) -> Option<&AreaSlot> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: AreaNo) -> Option<&mut AreaSlot> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn region_slot(&self, number: RegionNo) -> Option<&RegionSlot> {
        self.regions.get(number as usize)?.as_ref()
    }

    pub(super) fn region_slot_mut(&mut self, number: RegionNo) -> Option<&mut RegionSlot> {
        self.regions.get_mut(number as usize)?.as_mut()
    }

    /// Every area in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AreaNo, &AreaSlot)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(number, slot)| Some((number as AreaNo, slot.as_ref()?)))
    }
}
