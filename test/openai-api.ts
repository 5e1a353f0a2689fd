/** A local server that speaks the wire format of the OpenAI API, as far as tests need it: it says the same five words to everybody. */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

export interface OpenAIApi {
  /** Its base URL. */
  readonly url: string
  /** The bodies of all calls so far. */
  readonly asked: Record<string, unknown>[]
  close(): void
}

const WORD = 'word'
/** What every call uses. */
const INPUT = 100
const CACHED = 40
const OUTPUT = 7
const completionUsage = {
  prompt_tokens: INPUT,
  prompt_tokens_details: { cached_tokens: CACHED },
  completion_tokens: OUTPUT,
  total_tokens: INPUT + OUTPUT,
}
const responseUsage = {
  input_tokens: INPUT,
  input_tokens_details: { cached_tokens: CACHED },
  output_tokens: OUTPUT,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: INPUT + OUTPUT,
}

type Body = Record<string, unknown>

/**
 * The model `broken` is answered 400, `long` streams two hundred words slowly, and `odd` tells a use that is none. Who brings tools with a call of `responses` has
 * the first called, until there is an output of it.
 */
export async function startOpenAI(): Promise<OpenAIApi> {
  const asked: Body[] = []
  const server = createServer(async (request, response) => {
    const body = JSON.parse((await request.toArray()).join('')) as Body
    asked.push(body)
    if (body.model === 'broken') return json(response, 400, {})
    const isResponse = String(request.url).endsWith('/responses')
    if (body.stream === true) return isResponse ? streamResponse(response, body) : streamChat(response, body)
    return json(response, 200, isResponse ? wholeResponse(body) : wholeChat(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    asked,
    close() {
      server.closeAllConnections()
      server.close()
    },
  }
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const wholeChat = ({ model }: Body) => ({
  id: 'c',
  object: 'chat.completion',
  created: 1,
  model,
  choices: [{ index: 0, message: { role: 'assistant', content: 'hello' }, finish_reason: 'stop' }],
  usage: usageOf(model),
})

const usageOf = (model: unknown) =>
  model === 'odd' ? { ...completionUsage, prompt_tokens: 'many', completion_tokens: -1.5 } : completionUsage

function wholeResponse({ model, tools, input }: Body) {
  const [tool] = Array.isArray(tools) ? (tools as readonly { readonly name: string }[]) : []
  const text = { type: 'output_text', text: 'hello', annotations: [] }
  const message = { type: 'message', id: 'm', role: 'assistant', status: 'completed', content: [text] }
  const isCalled = tool !== undefined && !JSON.stringify(input).includes('function_call_output')
  const call = {
    type: 'function_call',
    id: 'f',
    call_id: 'f1',
    name: tool?.name,
    arguments: '{"city":"Bonn"}',
  }
  return {
    ...{ id: 'r', object: 'response', created_at: 1, model, status: 'completed' },
    output: [isCalled ? call : message],
    usage: responseUsage,
  }
}

async function streamChat(response: ServerResponse, { model, stream_options }: Body): Promise<void> {
  const say = events(response)
  const chunk = { id: 'c', object: 'chat.completion.chunk', created: 1, model }
  await words(response, model, () => say({ ...chunk, choices: [{ index: 0, delta: { content: WORD } }] }))
  const { include_usage } = (stream_options ?? {}) as { include_usage?: boolean }
  if (include_usage) say({ ...chunk, choices: [], usage: usageOf(model) })
  response.end('data: [DONE]\n\n')
}

async function streamResponse(response: ServerResponse, { model }: Body): Promise<void> {
  const say = events(response)
  const item = { type: 'message', id: 'm', role: 'assistant', content: [] }
  const head = { id: 'r', object: 'response', created_at: 1, model, output: [] }
  say({ type: 'response.created', response: head })
  say({ type: 'response.output_item.added', output_index: 0, item })
  await words(response, model, (number) =>
    say({
      ...{ type: 'response.output_text.delta', item_id: 'm', output_index: 0, content_index: 0 },
      ...{ delta: WORD, sequence_number: number, logprobs: [] },
    }),
  )
  say({ type: 'response.output_item.done', output_index: 0, item: { ...item, status: 'completed' } })
  say({ type: 'response.completed', response: { ...head, usage: responseUsage } })
  response.end()
}

function events(response: ServerResponse): (event: unknown) => void {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  return (event) => response.write(`data: ${JSON.stringify(event)}\n\n`)
}

async function words(response: ServerResponse, model: unknown, say: (n: number) => void): Promise<void> {
  const isLong = model === 'long'
  for (let number = 0; number < (isLong ? 200 : 5) && !response.destroyed; number++) {
    say(number)
    if (isLong) await pause(5)
  }
}
