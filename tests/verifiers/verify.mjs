// Checks the gateway's tokens as a service in Node would: with jose and the published keys alone.
//
// Reads cases as JSON on standard input, [{name, jwks, jwt, typ, iss, aud, good}], and fails if one is judged otherwise
// than said.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

// jose stands where the caller installed it.
const from = createRequire(pathToFileURL(`${process.env.WXGATE_JOSE}/package.json`))
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(from.resolve('jose')).href)

let wrong = 0
for (const { name, jwks, jwt, typ, iss, aud, good } of JSON.parse(readFileSync(0, 'utf8'))) {
  const keys = createRemoteJWKSet(new URL(jwks))
  const options = { typ, issuer: iss, audience: aud, algorithms: ['ES256', 'EdDSA', 'RS256'], requiredClaims: ['exp', 'iat', 'sub'] }
  const refused = await jwtVerify(jwt, keys, options).then(() => null, (error) => `${error.code}: ${error.message}`)
  if ((refused === null) !== good) {
    wrong += 1
    console.log(`${name}: ${refused ?? 'accepted'}`)
  }
}
process.exit(wrong ? 1 : 0)
