/**
 * The policy. Its document is the body, as YAML or JSON; `{ "policy": "<text>" }` carries it inside JSON. A policy has
 * no name `policy` at its top, so the two are told apart.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { SluiceError } from '../../errors.ts'
import type { PolicyView as View } from '../../wire.ts'
import { ADMIN, type App, callerOf, type Door, READ } from '../door.ts'
import { etagOf, ifMatch } from '../etag.ts'
import { utf8 } from '../json.ts'
import { integer, PageOnly, pageOf } from '../query.ts'
import { PolicyCheck, PolicyVersionView, PolicyView, pageAnswer } from '../schemas/answers.ts'
import { ref } from '../schemas/shapes.ts'

export const POLICY_MEDIA = ['application/yaml', 'application/json'] as const
const ALSO_YAML = ['application/x-yaml', 'text/yaml', 'text/x-yaml']

const Document = Type.Object(
  { policy: Type.String({ description: 'The document, as YAML or JSON text' }) },
  { description: 'The document itself, or its text under `policy`' },
)
const documented = { body: Document, media: POLICY_MEDIA }

export function policy(app: App, door: Door): void {
  readers(app, door)
  app.register(async (inner) => {
    inner.removeAllContentTypeParsers()
    inner.addContentTypeParser(
      [...POLICY_MEDIA, ...ALSO_YAML],
      { parseAs: 'buffer' },
      (_request, body: Buffer, done) => done(null, utf8(body)),
    )
    writers(inner as App, door)
  })
}

function readers(app: App, { engine }: Door): void {
  app.get(
    '/v1/policy',
    {
      schema: {
        querystring: Type.Object(
          { version: Type.Optional(integer('A version')) },
          { additionalProperties: false },
        ),
        response: { 200: ref(PolicyView) },
      },
      config: {
        call: {
          id: 'readPolicy',
          carries: 'etag',
          tag: 'policy',
          says: 'Show the policy in force, or a version',
          roles: READ,
          scope: 'all',
          errors: ['policy_missing', 'not_found'],
        },
      },
    },
    async ({ query: { version } }, reply) =>
      tagged(await engine.policy(version === undefined ? undefined : Number(version)), reply),
  )
  app.get(
    '/v1/policy/versions',
    {
      schema: { querystring: PageOnly, response: { 200: pageAnswer(PolicyVersionView) } },
      config: {
        call: {
          id: 'listPolicyVersions',
          tag: 'policy',
          says: 'List versions',
          roles: READ,
          scope: 'all',
          errors: [],
        },
      },
    },
    async ({ query }) => engine.policyVersions(pageOf(query)),
  )
}

function writers(app: App, { engine }: Door): void {
  app.put(
    '/v1/policy',
    {
      schema: { response: { 200: ref(PolicyView) } },
      config: {
        ...documented,
        call: {
          id: 'publishPolicy',
          carries: 'etag',
          ifMatch: 'must',
          tag: 'policy',
          says: 'Publish a policy: it is in force with the answer',
          roles: ADMIN,
          scope: 'all',
          errors: ['policy_invalid', 'precondition_failed', 'precondition_required', 'too_big', 'media_type'],
        },
      },
    },
    async (request, reply) => {
      const wanted = ifMatch(request.headers['if-match'])
      if (wanted === undefined) {
        throw new SluiceError('precondition_required', 'If-Match is needed here.', {
          path: '/if-match',
          remedy: 'Send the ETag of the policy you have read, or "0" for the first.',
        })
      }
      const text = documentOf(request)
      const version = wanted === '*' ? undefined : wanted
      return tagged(await engine.publishPolicy(text, version, callerOf(request.key)), reply)
    },
  )
  app.post(
    '/v1/policy/check',
    {
      schema: { response: { 200: ref(PolicyCheck) } },
      config: {
        ...documented,
        call: {
          id: 'checkPolicy',
          tag: 'policy',
          says: 'Check a policy without publishing it',
          roles: ADMIN,
          scope: 'all',
          errors: ['too_big', 'media_type'],
        },
      },
    },
    async (request) => engine.checkPolicy(documentOf(request)),
  )
}

function documentOf(request: FastifyRequest): string {
  const text = request.body
  if (typeof text !== 'string' || text.trim() === '') {
    throw new SluiceError('invalid', 'The body is empty.', {
      path: '',
      remedy: 'Send the policy as the body, with content-type application/yaml or application/json.',
    })
  }
  return /^application\/json\b/i.test(request.headers['content-type'] ?? '') ? unwrapped(text) : text
}

/** The text under `policy`, where that is what the JSON holds; else the JSON itself, as it came, with its lines. */
function unwrapped(text: string): string {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, 'policy')) return text
    const { policy: inner, ...more } = value as { policy: unknown }
    if (typeof inner === 'string' && Object.keys(more).length === 0) return inner
  } catch {
    // What is not JSON is told by the policy's own reader, with line and column.
    return text
  }
  throw new SluiceError('invalid', '`policy` is not a text on its own.', {
    path: '/policy',
    remedy: 'Send {"policy":"<text>"} and nothing beside it, or the document itself as the body.',
  })
}

function tagged(view: View, reply: FastifyReply): View {
  reply.header('etag', etagOf(view.version))
  return view
}
