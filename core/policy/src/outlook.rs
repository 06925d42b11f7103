//! Many questions to one endpoint's policy: what they share is worked out once.

use crate::{
    Direction, Engine, EntryVerdict, Party, Traffic,
    case::Case,
    link::Asked,
    order::{Frame, rule_on},
};

/// One end's policy in one direction, for questions about many peers.
///
/// It answers what [`Engine::verdict`] answers, for whoever asks about every pair of a thousand pods.
#[derive(Debug)]
pub struct Outlook<'a> {
    engine: &'a Engine,
    subject: Party,
    direction: Direction,
    /// `None`: nothing is enforced.
    frame: Option<Frame>,
    rules: Vec<Asked<'a>>,
}

/// What is left of it for one peer, for questions about many ports.
#[derive(Debug)]
pub struct Towards<'a> {
    engine: &'a Engine,
    subject: Party,
    peer: Party,
    direction: Direction,
    frame: Option<Frame>,
    /// The rules that are about the peer, and whether names for ports count.
    rules: Vec<(Asked<'a>, bool)>,
}

impl Engine {
    /// The policy of one end in one direction.
    pub fn outlook(&self, subject: &Party, direction: Direction) -> Outlook<'_> {
        let specs = self.selecting(subject.subject());
        let frame = self.frame(subject.subject(), &specs, direction);
        let rules = match frame {
            Some(_) => specs
                .into_iter()
                .flat_map(|spec| spec.rules(direction))
                .collect(),
            None => Vec::new(),
        };
        Outlook {
            engine: self,
            subject: *subject,
            direction,
            frame,
            rules,
        }
    }
}

impl<'a> Outlook<'a> {
    /// What it says of one peer.
    pub fn towards(&self, peer: &Party) -> Towards<'a> {
        let nothing = Traffic {
            protocol: 0,
            port: 0,
        };
        let case = Case::new(self.engine, &self.subject, peer, self.direction, nothing);
        let rules = self
            .rules
            .iter()
            .filter_map(|asked| Some((*asked, case.names_count(asked.linked)?)))
            .collect();
        let own_node =
            self.engine
                .passes_as_own_node(self.subject.subject(), peer.identity, self.direction);
        Towards {
            engine: self.engine,
            subject: self.subject,
            peer: *peer,
            direction: self.direction,
            frame: self.frame.map(|frame| Frame { own_node, ..frame }),
            rules,
        }
    }
}

impl Towards<'_> {
    /// The verdict on what is spoken.
    pub fn verdict(&self, traffic: Traffic) -> EntryVerdict {
        let Some(frame) = self.frame else {
            return EntryVerdict::Allow;
        };
        let case = Case::new(
            self.engine,
            &self.subject,
            &self.peer,
            self.direction,
            traffic,
        );
        let matching = self
            .rules
            .iter()
            .filter(|(asked, names)| case.port_failure(&asked.linked.ports, *names).is_none())
            .map(|(asked, _)| asked.place());
        rule_on(matching, frame).because.verdict()
    }
}
