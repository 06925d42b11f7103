//! Puts endpoints with the same ports into slices, and leaves those alone that need no change.

use super::{ByPod, MAX_ENDPOINTS_PER_SLICE};
use crate::{Endpoint, EndpointSlice, Family, Service, SlicePort};
use heddle_model::NamespacedName;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Endpoints that may share slices.
pub(super) struct Group<'a> {
    pub(super) service: &'a Service,
    pub(super) family: Family,
    pub(super) ports: &'a [SlicePort],
}

/// A Service's former slices by what their endpoints have in common.
pub(super) struct Former<'a>(BTreeMap<(Family, &'a [SlicePort]), Vec<&'a EndpointSlice>>);

impl<'a> Former<'a> {
    pub(super) fn new(service: &Service, slices: &'a [EndpointSlice]) -> Self {
        let mut found: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.service == service.name) {
            let group = (slice.family, &*slice.ports);
            found.entry(group).or_default().push(slice);
        }
        for slices in found.values_mut() {
            // The fuller one keeps an endpoint that two slices have.
            slices.sort_by_key(|slice| (Reverse(slice.endpoints.len()), &slice.name));
        }
        Self(found)
    }
}

/// Names that no slice has.
pub(super) struct FreeNames {
    taken: BTreeSet<String>,
    /// Where the search goes on in each family: names are taken and never given back.
    next: [u64; 2],
}

impl FreeNames {
    pub(super) fn beside(slices: &[EndpointSlice]) -> Self {
        Self {
            taken: slices.iter().map(|slice| slice.name.name.clone()).collect(),
            next: [0; 2],
        }
    }

    /// The first name for a Service's slice of a family that no slice has.
    fn take(&mut self, service: &NamespacedName, family: Family) -> NamespacedName {
        let next = &mut self.next[family as usize];
        loop {
            let word = family.label();
            let candidate = format!("{}-{word}-{next}", service.name);
            *next += 1;
            if self.taken.insert(candidate.clone()) {
                return NamespacedName::new(service.namespace.as_str(), candidate);
            }
        }
    }
}

/// A slice while it is filled.
struct Draft {
    slice: EndpointSlice,
    /// Whether it differs from what it was anyway.
    changed: bool,
}

impl Draft {
    fn room(&self) -> usize {
        MAX_ENDPOINTS_PER_SLICE.saturating_sub(self.slice.endpoints.len())
    }
}

impl Group<'_> {
    /// The slices for these endpoints.
    ///
    /// What is new goes where something changes anyway, then into the fullest slice that has room for all of it, then
    /// into new ones (KEP-752, "EndpointSlice controller").
    pub(super) fn place(
        &self,
        mut wanted: ByPod,
        former: &Former<'_>,
        names: &mut FreeNames,
    ) -> Vec<EndpointSlice> {
        let mut drafts = self.keep(&mut wanted, former);
        let mut new = wanted.into_values();
        for draft in drafts.iter_mut().filter(|draft| draft.changed) {
            let room = draft.room();
            draft.slice.endpoints.extend(new.by_ref().take(room));
        }
        let left = new.len();
        let fullest = drafts
            .iter_mut()
            .filter(|draft| left > 0 && draft.room() >= left)
            .min_by_key(|draft| (draft.room(), draft.slice.name.clone()));
        if let Some(draft) = fullest {
            draft.slice.endpoints.extend(new.by_ref());
        }
        let mut slices: Vec<EndpointSlice> = drafts.into_iter().map(|draft| draft.slice).collect();
        slices.retain(|slice| !slice.endpoints.is_empty());
        while new.len() > 0 {
            let endpoints = new.by_ref().take(MAX_ENDPOINTS_PER_SLICE).collect();
            let name = names.take(&self.service.name, self.family);
            slices.push(self.slice(name, endpoints));
        }
        slices
    }

    /// The former slices with those of their endpoints that are still wanted, which are taken out of `wanted`.
    fn keep(&self, wanted: &mut ByPod, former: &Former<'_>) -> Vec<Draft> {
        let own = former.0.get(&(self.family, self.ports));
        let mut drafts = Vec::new();
        for slice in own.into_iter().flatten() {
            let mut kept = Vec::new();
            for endpoint in slice.endpoints.iter().take(MAX_ENDPOINTS_PER_SLICE) {
                let pod = endpoint.pod.as_ref();
                kept.extend(pod.and_then(|pod| wanted.remove(pod)));
            }
            drafts.push(Draft {
                changed: kept != slice.endpoints,
                slice: self.slice(slice.name.clone(), kept),
            });
        }
        drafts
    }

    fn slice(&self, name: NamespacedName, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            name,
            service: self.service.name.clone(),
            family: self.family,
            ports: Arc::from(self.ports),
            endpoints,
            problems: Vec::new(),
        }
    }
}
