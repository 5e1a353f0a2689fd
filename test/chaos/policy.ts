/** Limits that the load meets all the time, and that the checks count after: an amount of each kind in CU. */
export const LIMITS = { inFlight: 24, allowance: 20, overage: 60 } as const

export const POLICY = {
  features: { job: {} },
  plans: {
    load: {
      guards: [{ name: 'in-flight', concurrency: LIMITS.inFlight }],
      waterfall: [
        {
          allowance: 'a',
          // A node that went by a clock of its own, an hour ahead, would take it for over.
          windows: [{ name: 'w', limit: String(LIMITS.allowance), per: '1h', anchor: 'first_use' }],
        },
        { credits: ['purchased'] },
        { overage: { limit: String(LIMITS.overage), per: 'month' } },
      ],
      hold: { ttl: '10m' },
    },
  },
} as const
