//! A caller's events on their way up: a session's model is fixed, and a model that transcribes its input is a model like any other.

use crate::problem::Problem;
use std::sync::Arc;
use tenon_dialects::BodyError;
use tenon_dialects::realtime::{Named, scan_client_event};
use tenon_policy::{Chosen, Refusal};
use tenon_snapshot::{Key, Snapshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// What an event may name.
pub struct Names {
    pub key: Arc<Key>,
    pub chosen: Chosen,
}

impl Names {
    /// The event as it goes up.
    ///
    /// # Errors
    /// What the caller is told of an event that goes no further.
    pub fn pass(&self, snapshot: &Snapshot, text: Utf8Bytes) -> Result<Utf8Bytes, Problem> {
        let event = scan_client_event(&text).map_err(|error| Problem::from(BodyError::from(error)))?;
        let mut renamed = None;
        for named in event.models.iter().rev() {
            if let Some(name) = self.upstream_name(snapshot, named)? {
                let whole = renamed.get_or_insert_with(|| text.to_string());
                // From the last to the first: the places before stay where they were.
                whole.replace_range(named.at.0..named.at.1, &serde_json::Value::from(name).to_string());
            }
        }
        Ok(renamed.map_or(text, Utf8Bytes::from))
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
