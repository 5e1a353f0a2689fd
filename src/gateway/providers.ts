/** All providers by name. */
import type { Provider } from './provider.ts'
import { anthropic } from './providers/anthropic.ts'
import { openai } from './providers/openai.ts'

export const PROVIDERS = { anthropic, openai } as const satisfies Readonly<Record<string, Provider>>
