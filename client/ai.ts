/** The AI SDK (package `ai`): a middleware for language models. Each call of a model is one request, those of tool loops too. */
import { type AccessOptions, AccessRefused, type AccessRequest } from './access.ts'
import type { Client } from './client.ts'
import type { Lease } from './lease.ts'
import { type Opened, open } from './open.ts'
import { estimateTokens, type Tokens, tokensOfText } from './tokens.ts'
import { watched } from './watched.ts'

export { estimateTokens }

/** As much of the SDK's types as is used here, so that no version of it is needed; version 3 of its specification. */
interface Usage {
  readonly inputTokens: { readonly total: number | undefined; readonly cacheRead: number | undefined }
  readonly outputTokens: { readonly total: number | undefined }
}
interface Params {
  readonly prompt: unknown
  readonly maxOutputTokens?: number | undefined
  readonly abortSignal?: AbortSignal | undefined
  readonly providerOptions?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
}
interface Part {
  readonly type: string
  readonly delta?: string
  readonly usage?: unknown
}

export interface ModelCall {
  readonly provider: string
  readonly modelId: string
  readonly params: Params
}

export interface MeteredModelOptions extends AccessOptions {
  readonly client: Client
  /** Whom the call is for and what it needs. Without an estimate: the input by length, the output by its bound. */
  request(call: ModelCall): AccessRequest | Promise<AccessRequest>
}

/**
 * `wrapLanguageModel({ model, middleware: sluice({ client, request }) })`. A refusal throws `AccessRefused`, which the SDK does not
 * retry. A stream that is left is charged with what it brought until then, its tokens counted by length.
 */
export function sluice(options: MeteredModelOptions) {
  async function begin(call: ModelCall) {
    const asked = await options.request(call)
    const hasAmount = asked.estimate !== undefined || asked.cost !== undefined
    const estimate = estimateTokens(call.params.prompt, call.params.maxOutputTokens)
    const request = hasAmount ? asked : { ...asked, estimate }
    const { abortSignal } = call.params
    const signals = [options.signal, abortSignal].filter((one) => one !== undefined)
    const opened = await open(options.client, request, {
      ...options,
      ...(signals.length > 0 && { signal: AbortSignal.any(signals) }),
    })
    if (!opened.ok) throw new AccessRefused(opened)
    return { ...opened, input: estimate.input_tokens }
  }
  const withSignal = <P extends Params>(params: P, lease: Lease): P => ({
    ...params,
    abortSignal: lease.signal,
  })

  return {
    specificationVersion: 'v3' as const,

    async wrapGenerate<P extends Params, R extends { readonly usage: Usage }>({
      model,
      params,
    }: {
      readonly model: Named & { doGenerate(params: P): PromiseLike<R> }
      readonly params: P
    }): Promise<R> {
      const { lease, end } = await begin({ ...named(model), params })
      try {
        const result = await model.doGenerate(withSignal(params, lease))
        lease.report({ ...tokensOf(result.usage) })
        await end('done')
        return result
      } catch (error) {
        await end('failed')
        throw error
      }
    },

    async wrapStream<P extends Params, R extends { readonly stream: ReadableStream<Part> }>({
      model,
      params,
    }: {
      readonly model: Named & { doStream(params: P): PromiseLike<R> }
      readonly params: P
    }): Promise<R> {
      const opened = await begin({ ...named(model), params })
      try {
        const result = await model.doStream(withSignal(params, opened.lease))
        return { ...result, stream: meteredParts(result.stream, opened, opened.input) }
      } catch (error) {
        await opened.end('failed')
        throw error
      }
    },
  }
}

interface Named {
  readonly provider: string
  readonly modelId: string
}
const named = ({ provider, modelId }: Named): Named => ({ provider, modelId })

function meteredParts<P extends Part>(
  stream: ReadableStream<P>,
  { lease, end }: Opened,
  input: number,
): ReadableStream<P> {
  let characters = 0
  let isWhole = false
  function see({ type, delta, usage }: Part): void {
    if (typeof delta === 'string') {
      characters += delta.length
      lease.report({ input_tokens: input, output_tokens: tokensOfText(characters) })
    } else if (type === 'finish') {
      lease.report({ ...tokensOf(usage as Usage) })
      isWhole = true
    }
  }
  return watched(stream, see, (how) => end(how === 'done' && !isWhole ? 'failed' : how))
}

/** What a provider does not tell counts as estimated. */
function tokensOf({ inputTokens, outputTokens }: Usage): Partial<Tokens> {
  const cached = inputTokens.cacheRead ?? 0
  return {
    ...(inputTokens.total !== undefined && {
      input_tokens: Math.max(0, inputTokens.total - cached),
      cached_input_tokens: cached,
    }),
    ...(outputTokens.total !== undefined && { output_tokens: outputTokens.total }),
  }
}
