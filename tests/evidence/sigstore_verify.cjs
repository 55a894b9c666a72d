// Checks one Sigstore bundle with @sigstore/verify and one public key, without any log or timestamp.
// argv: folder of node_modules, bundle, public key in PEM, artifact (may be missing). Prints one line of JSON.
const { createRequire } = require("node:module");
const { createPublicKey } = require("node:crypto");
const { readFileSync } = require("node:fs");
const [modules, bundleFile, keyFile, artifactFile] = process.argv.slice(2);
const from = createRequire(`${modules}/`);
const { bundleFromJSON } = from("@sigstore/bundle");
const { toSignedEntity, toTrustMaterial, Verifier } = from("@sigstore/verify");

const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const key = { publicKey: createPublicKey(readFileSync(keyFile)), validFor: () => true };
const limits = { ctlogThreshold: 0, tlogThreshold: 0, tsaThreshold: 0 };
const answer = { hints: [] };
try {
  const bundle = bundleFromJSON(JSON.parse(readFileSync(bundleFile, "utf8")));
  const trust = toTrustMaterial(none, (hint) => (answer.hints.push(hint), key));
  const artifact = artifactFile === undefined ? undefined : readFileSync(artifactFile);
  new Verifier(trust, limits).verify(toSignedEntity(bundle, artifact));
  answer.accepted = true;
} catch (error) {
  answer.accepted = false;
  answer.why = `${error.name}: ${error.message}`;
}
console.log(JSON.stringify(answer));
