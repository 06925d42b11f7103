//! Puts endpoints with the same ports into slices, and leaves those alone that need no change.

use super::{ByPod, MAX_ENDPOINTS_PER_SLICE};
use crate::{Endpoint, EndpointSlice, Family, Service, SlicePort};
use heddle_model::NamespacedName;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Endpoints that may share slices.
pub(super) struct Group<'a> {
    pub(super) service: &'a Service,
    pub(super) family: Family,
    pub(super) ports: &'a [SlicePort],
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
    /// The slices for these endpoints. `taken` are the names that slices have.
    ///
    /// What is new goes where something changes anyway, then into the fullest slice that has room for all of it, then
    /// into new ones (KEP-752, "EndpointSlice controller").
    pub(super) fn place(
        &self,
        mut wanted: ByPod,
        former: &[EndpointSlice],
        taken: &mut BTreeSet<String>,
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
            slices.push(self.slice(self.free_name(taken), endpoints));
        }
        slices
    }

    /// The former slices with those of their endpoints that are still wanted, which are taken out of `wanted`.
    fn keep(&self, wanted: &mut ByPod, former: &[EndpointSlice]) -> Vec<Draft> {
        let mut own: Vec<&EndpointSlice> = former
            .iter()
            .filter(|slice| {
                slice.service == self.service.name
                    && slice.family == self.family
                    && *slice.ports == *self.ports
            })
            .collect();
        // The fuller one keeps an endpoint that two slices have.
        own.sort_by_key(|slice| (Reverse(slice.endpoints.len()), &slice.name));
        let mut drafts = Vec::new();
        for slice in own {
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

    /// The first name that no slice has.
    fn free_name(&self, taken: &mut BTreeSet<String>) -> NamespacedName {
        let Service { name, .. } = self.service;
        let family = self.family.name().to_lowercase();
        let mut number = 0_u64;
        loop {
            let candidate = format!("{}-{family}-{number}", name.name);
            if taken.insert(candidate.clone()) {
                return NamespacedName::new(name.namespace.as_str(), candidate);
            }
            number += 1;
        }
    }
}
