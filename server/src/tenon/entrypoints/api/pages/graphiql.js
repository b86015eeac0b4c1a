"use strict";
const example = `# The types on the left (book icon) are what your key may see. Ctrl+Enter runs the query.
{
  airport(key: {code: "JFK"}) {
    name
    departures(first: 5, sort: [departure_delay_minutes_DESC], filter: {status: {eq: "departed"}}) {
      items { flight_number scheduled_departure departure_delay_minutes airline { name } destination_airport { name } }
      next
    }
  }
}
`;
const root = ReactDOM.createRoot(document.getElementById("graphiql"));
const state = document.getElementById("state");

// GraphiQL asks for the schema when it is created, so each key gets a GraphiQL of its own.
function show(key) {
  const fetcher = async ({ query, variables, operationName }) => {
    if (!key) return { errors: [{ message: "Paste an API key above first." }] };
    const answer = await fetch("/v1/graphql", {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
      body: JSON.stringify({ query, variables, operationName }),
    });
    const body = await answer.json();
    state.textContent = answer.ok ? "Key in use." : `${answer.status}: ${body.message ?? body.errors?.[0]?.message ?? "refused"}`;
    return body.errors || body.data ? body : { errors: [{ message: body.message ?? `HTTP status ${answer.status}` }] };
  };
  root.render(React.createElement(GraphiQL, { key, fetcher, defaultQuery: example, shouldPersistHeaders: false }));
}

document.getElementById("access").addEventListener("submit", (event) => {
  event.preventDefault();
  show(document.getElementById("key").value.trim());
});
show("");
