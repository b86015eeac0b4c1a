//! A caller's events on their way to the endpoint: a session's model is fixed, and a model that transcribes input is checked like any other.

use crate::base::problem::Problem;
use std::sync::Arc;
use tenon_dialects::BodyError;
use tenon_dialects::realtime::{NamedModel, scan_client_event};
use tenon_limits::ApplicableRules;
use tenon_policy::{ChosenRoute, Refusal};
use tenon_snapshot::{Key, Snapshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Why an event is not passed on, and the caller's id for it.
pub struct RefusedEvent {
    pub problem: Problem,
    pub event_id: Option<Box<str>>,
}

impl From<Problem> for Box<RefusedEvent> {
    fn from(problem: Problem) -> Self {
        Self::new(RefusedEvent { problem, event_id: None })
    }
}

/// Which models the events may name, and how the endpoint calls them.
pub struct ModelNames {
    pub key: Arc<Key>,
    pub chosen: ChosenRoute,
}

impl ModelNames {
    /// The event as the endpoint gets it. `begin_response` is called, with the cap on its output, for an event that requests a response.
    ///
    /// # Errors
    /// Why an event is not passed on.
    pub fn pass(
        &self,
        snapshot: &Snapshot,
        text: Utf8Bytes,
        begin_response: impl FnOnce(Option<u64>) -> Result<(), Problem>,
    ) -> Result<Utf8Bytes, Box<RefusedEvent>> {
        let event = scan_client_event(&text).map_err(|error| Problem::from(BodyError::from(error)))?;
        let refused = |problem| Box::new(RefusedEvent { problem, event_id: event.id.as_deref().map(Into::into) });
        let mut renamed = None;
        for named in event.models.iter().rev() {
            if let Some(name) = self.upstream_name(snapshot, named).map_err(refused)? {
                let whole = renamed.get_or_insert_with(|| text.to_string());
                // From the last to the first, so that earlier offsets stay valid.
                whole.replace_range(named.at.0..named.at.1, &serde_json::Value::from(name).to_string());
            }
        }
        if event.starts_response {
            begin_response(event.max_output_tokens).map_err(refused)?;
        }
        Ok(renamed.map_or(text, Utf8Bytes::from))
    }

    /// What limits the session, by the current snapshot: a limit may change while the session is open.
    pub fn limits(&self, snapshot: &Snapshot) -> ApplicableRules {
        let model = snapshot.routing(&self.key.record.tenant_id).and_then(|routing| routing.model(&self.chosen.model.name));
        ApplicableRules { key: snapshot.key(&self.key.id).and_then(|key| key.rules.clone()), model: model.and_then(|model| model.rules.clone()) }
    }

    /// How the endpoint calls the model; `None` = as the caller does.
    fn upstream_name(&self, snapshot: &Snapshot, named: &NamedModel<'_>) -> Result<Option<String>, Problem> {
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
