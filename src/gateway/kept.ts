/** One call's view of what its upstreams keep: under ids that only its caller can use (`ids.ts`), and nothing else. */
import { jsonIn } from './bodies.ts'
import type { UpstreamConfig } from './config.ts'
import type { Ids, Owner } from './ids.ts'
import { BadBody, type Endpoint, type Json, type Kept, UnknownId } from './provider.ts'

export interface KeptCall {
  /** Whether its bodies may name what is kept. */
  readonly asks: boolean
  /** Whether its answers name what is kept: they are read, and written anew. */
  readonly tells: boolean
  /** The body as this upstream is to get it. Throws `UnknownId`, and `BadBody` where it names what nobody is bound to. */
  ask(body: Json, upstream: UpstreamConfig): Json
  /** What an answer or an event says, as its caller is to know it; text that is no JSON object as it is. */
  tell(text: string, upstream: UpstreamConfig): string
  /** Which of them keeps what the path names, and the path there. Throws `UnknownId`; undefined where there is no upstream. */
  find(
    endpoint: Endpoint,
    url: URL,
    upstreams: readonly UpstreamConfig[],
  ): { readonly upstream: UpstreamConfig; readonly path: string } | undefined
}

/** Where lists go on. */
const CURSORS = ['after', 'before']

export function keptBy(ids: Ids, owner: Owner, kept: Kept): KeptCall {
  /** By id of the upstream: an id that the caller has named comes back as it was named. */
  const sealed = new Map<string, string>()

  function open(given: string, upstream: UpstreamConfig): string | undefined {
    const id = ids.open(given, upstream, owner)
    if (id !== undefined) sealed.set(`${upstream.name} ${id}`, given)
    return id
  }
  function seal(id: string, upstream: UpstreamConfig): string {
    const key = `${upstream.name} ${id}`
    return sealed.getOrInsertComputed(key, () => ids.seal(id, upstream, owner))
  }
  function need(given: string, upstream: UpstreamConfig): string {
    const id = open(given, upstream)
    if (id === undefined) throw new UnknownId('', given)
    return id
  }

  return {
    asks: kept.ask !== undefined || kept.names !== undefined,
    tells: kept.tell !== undefined,
    ask(body, upstream) {
      const named = upstream.sharedStorage ? undefined : kept.names?.(body)
      if (named !== undefined)
        throw new BadBody(named, 'what is stored at the provider is not served here: send it within the call')
      return kept.ask?.(body, (id) => open(id, upstream)) ?? body
    },
    tell(text, upstream) {
      const said = kept.tell === undefined ? undefined : jsonIn(text)
      if (said === undefined || kept.tell === undefined) return text
      return JSON.stringify(kept.tell(said, (id) => seal(id, upstream)))
    },
    find(endpoint, url, upstreams) {
      const given = url.pathname.split('/')
      const places = endpoint.path.split('/').flatMap((part, place) => (part.startsWith(':') ? [place] : []))
      const first = given[places[0] ?? -1]
      const upstream =
        first === undefined ? upstreams[0] : upstreams.find((one) => open(first, one) !== undefined)
      if (upstream === undefined) {
        if (first !== undefined) throw new UnknownId('', first)
        return undefined
      }
      for (const place of places) given[place] = encodeURIComponent(need(given[place] as string, upstream))
      const query = new URLSearchParams(url.searchParams)
      for (const name of CURSORS) {
        const cursor = query.get(name)
        if (cursor !== null) query.set(name, need(cursor, upstream))
      }
      if (query.has('stream') && query.get('stream') !== 'false')
        throw new BadBody('/stream', 'what is stored is told whole here, and not as a stream')
      return { upstream, path: `${given.join('/')}${query.size === 0 ? '' : `?${query}`}` }
    },
  }
}
