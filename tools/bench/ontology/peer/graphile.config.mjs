// PostGraphile as its documentation starts it: one process, no authentication, no row policies.
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { makePgService } from "postgraphile/adaptors/pg";
import { PostGraphileConnectionFilterPreset } from "postgraphile-plugin-connection-filter";

export default {
  extends: [PostGraphileAmberPreset, PostGraphileConnectionFilterPreset],
  pgServices: [makePgService({ connectionString: process.env.PEER_DATABASE_URL, schemas: ["peer"], poolConfig: { max: 10 } })],
  grafserv: { port: Number(process.env.PEER_PORT), host: "127.0.0.1", watch: false, graphiql: false },
  grafast: { explain: false },
};
