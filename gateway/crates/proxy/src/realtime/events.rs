//! A caller's events on their way up: a session's model is fixed, and a model that transcribes its input is a model like any other.

use crate::problem::Problem;
use std::sync::Arc;
use tenon_dialects::BodyError;
use tenon_dialects::realtime::{Named, scan_client_event};
use tenon_limits::Applies;
use tenon_policy::{Chosen, Refusal};
use tenon_snapshot::{Key, Snapshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Why an event goes no further, and the caller's name for it.
pub struct Stopped {
    pub problem: Problem,
    pub event_id: Option<Box<str>>,
}

impl From<Problem> for Box<Stopped> {
    fn from(problem: Problem) -> Self {
        Self::new(Stopped { problem, event_id: None })
    }
}

/// What an event may name.
pub struct Names {
    pub key: Arc<Key>,
    pub chosen: Chosen,
}

impl Names {
    /// The event as it goes up. `ask` is called, with the cap on its output, for one that asks for an answer.
    ///
    /// # Errors
    /// What the caller is told of an event that goes no further.
    pub fn pass(
        &self,
        snapshot: &Snapshot,
        text: Utf8Bytes,
        ask: impl FnOnce(Option<u64>) -> Result<(), Problem>,
    ) -> Result<Utf8Bytes, Box<Stopped>> {
        let event = scan_client_event(&text).map_err(|error| Problem::from(BodyError::from(error)))?;
        let stopped = |problem| Box::new(Stopped { problem, event_id: event.id.as_deref().map(Into::into) });
        let mut renamed = None;
        for named in event.models.iter().rev() {
            if let Some(name) = self.upstream_name(snapshot, named).map_err(stopped)? {
                let whole = renamed.get_or_insert_with(|| text.to_string());
                // From the last to the first: the places before stay where they were.
                whole.replace_range(named.at.0..named.at.1, &serde_json::Value::from(name).to_string());
            }
        }
        if event.starts_response {
            ask(event.max_output_tokens).map_err(stopped)?;
        }
        Ok(renamed.map_or(text, Utf8Bytes::from))
    }

    /// What limits the session, by the newest word: it may be open for longer than a limit is old.
    pub fn limits(&self, snapshot: &Snapshot) -> Applies {
        let model = snapshot.routing(&self.key.record.tenant_id).and_then(|routing| routing.model(&self.chosen.model.name));
        Applies { key: snapshot.key(&self.key.id).and_then(|key| key.rules.clone()), model: model.and_then(|model| model.rules.clone()) }
    }

    /// How the endpoint calls the model; `None` = as the caller does.
    fn upstream_name(&self, snapshot: &Snapshot, named: &Named<'_>) -> Result<Option<String>, Problem> {
        if named.is_own {
            let same = *named.model == *self.chosen.model.name;
            return if same { Ok(self.chosen.upstream_model().map(str::to_owned)) } else { Err(Problem::MODEL_FIXED) };
        }
        let routing = snapshot.routing(&self.key.record.tenant_id);
        let model = routing.and_then(|routing| routing.model(&named.model)).ok_or(Refusal::ModelNotFound)?;
        if !self.key.allows(&model.name) {
            return Err(Refusal::ModelNotAllowed.into());
        }
        let here = model.routes.iter().find(|route| route.endpoint.id == self.chosen.endpoint().id);
        let route = here.ok_or(Refusal::NoUsableEndpoint)?;
        Ok(route.upstream_model.as_deref().map(str::to_owned))
    }
}
