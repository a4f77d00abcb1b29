/* What the processor can do: the same training, written for one size at compile time (H, D, N) and hand-vectorised.

   Two layouts, of which the benchmark takes the faster one: LANES = 1 puts 16 networks into the lanes of a vector, for
   small networks; LANES = 0 trains one network at a time with vectors over its neurons, four points at a time, for those
   whose weights would not fit the nearest cache 16-fold. Full-batch descent with cross-entropy in float32; weights
   [b][h][d] and [b][h]; outputs [b][records][n] every `every` steps. Built with -O3 -march=native -ffast-math -fopenmp. */
#include <math.h>
#include <string.h>

#if LANES

#define L 16
void train(int b, int steps, int every, float eta, float *w, float *z, const float *x, const float *y, const float *q,
           float *out) {
    int records = steps / every;
#pragma omp parallel for schedule(static)
    for (int group = 0; group < b / L; group++) {
        float W[H][D][L], Z[H][L], P[N][H][L], F[N][L];
        for (int l = 0; l < L; l++)
            for (int j = 0; j < H; j++) {
                long net = (long)group * L + l;
                Z[j][l] = z[net * H + j];
                for (int k = 0; k < D; k++) W[j][k][l] = w[(net * H + j) * D + k];
            }
        for (int t = 0; t <= steps; t++) {
            for (int i = 0; i < N; i++)
                for (int l = 0; l < L; l++) F[i][l] = 0;
            for (int j = 0; j < H; j++)
                for (int i = 0; i < N; i++) {
                    float pre[L];
#pragma omp simd
                    for (int l = 0; l < L; l++) {
                        float s = 0;
                        for (int k = 0; k < D; k++) s += W[j][k][l] * x[i * D + k];
                        pre[l] = s;
                    }
#pragma omp simd
                    for (int l = 0; l < L; l++) {
                        float a = pre[l] > 0 ? pre[l] : 0;
                        P[i][j][l] = a;
                        F[i][l] += Z[j][l] * a;
                    }
                }
            if (t > 0 && t % every == 0)
                for (int l = 0; l < L; l++)
                    for (int i = 0; i < N; i++)
                        out[(((long)group * L + l) * records + t / every - 1) * N + i] = F[i][l];
            if (t == steps) break;
            for (int i = 0; i < N; i++)
#pragma omp simd
                for (int l = 0; l < L; l++) F[i][l] = eta * q[i] * y[i] / (1 + expf(y[i] * F[i][l]));
            for (int j = 0; j < H; j++) {
                float G[D][L], gz[L];
                for (int l = 0; l < L; l++) gz[l] = 0;
                for (int k = 0; k < D; k++)
                    for (int l = 0; l < L; l++) G[k][l] = 0;
                for (int i = 0; i < N; i++) {
                    float r[L];
#pragma omp simd
                    for (int l = 0; l < L; l++) {
                        gz[l] += P[i][j][l] * F[i][l];
                        r[l] = P[i][j][l] > 0 ? F[i][l] : 0;
                    }
                    for (int k = 0; k < D; k++)
#pragma omp simd
                        for (int l = 0; l < L; l++) G[k][l] += r[l] * x[i * D + k];
                }
                for (int k = 0; k < D; k++)
#pragma omp simd
                    for (int l = 0; l < L; l++) W[j][k][l] += Z[j][l] * G[k][l];
#pragma omp simd
                for (int l = 0; l < L; l++) Z[j][l] += gz[l];
            }
        }
        for (int l = 0; l < L; l++)
            for (int j = 0; j < H; j++) {
                long net = (long)group * L + l;
                z[net * H + j] = Z[j][l];
                for (int k = 0; k < D; k++) w[(net * H + j) * D + k] = W[j][k][l];
            }
    }
}

#else

typedef float vec __attribute__((vector_size(64)));
#define V (H / 16)

static inline float sum(vec a) {
    float s = 0;
    for (int l = 0; l < 16; l++) s += a[l];
    return s;
}

void train(int b, int steps, int every, float eta, float *w, float *z, const float *x, const float *y, const float *q,
           float *out) {
    int records = steps / every;
#pragma omp parallel for schedule(static)
    for (int net = 0; net < b; net++) {
        vec W[D][V], Z[V], P[N][V];
        float f[N], g[N];
        for (int k = 0; k < D; k++)
            for (int j = 0; j < H; j++) ((float *)W[k])[j] = w[((long)net * H + j) * D + k];
        memcpy(Z, z + (long)net * H, H * sizeof(float));
        for (int t = 0; t <= steps; t++) {
            for (int i = 0; i < N; i += 4) {
                vec acc[4][V];
                memset(acc, 0, sizeof acc);
                for (int k = 0; k < D; k++)
                    for (int c = 0; c < 4; c++)
                        for (int j = 0; j < V; j++) acc[c][j] += W[k][j] * x[(i + c) * D + k];
                for (int c = 0; c < 4; c++) {
                    vec s = {0};
                    for (int j = 0; j < V; j++) {
                        vec p = acc[c][j];
                        for (int l = 0; l < 16; l++) p[l] = p[l] > 0 ? p[l] : 0;
                        P[i + c][j] = p;
                        s += p * Z[j];
                    }
                    f[i + c] = sum(s);
                }
            }
            if (t > 0 && t % every == 0) memcpy(out + ((long)net * records + t / every - 1) * N, f, sizeof f);
            if (t == steps) break;
            for (int i = 0; i < N; i++) g[i] = eta * q[i] * y[i] / (1 + expf(y[i] * f[i]));
            vec gz[V];
            memset(gz, 0, sizeof gz);
            for (int i = 0; i < N; i++)
                for (int j = 0; j < V; j++) {
                    gz[j] += P[i][j] * g[i];
                    for (int l = 0; l < 16; l++) P[i][j][l] = P[i][j][l] > 0 ? g[i] : 0;
                }
            for (int k = 0; k < D; k += 4) {
                vec acc[4][V];
                memset(acc, 0, sizeof acc);
                for (int i = 0; i < N; i++)
                    for (int c = 0; c < 4; c++)
                        for (int j = 0; j < V; j++) acc[c][j] += P[i][j] * x[i * D + k + c];
                for (int c = 0; c < 4; c++)
                    for (int j = 0; j < V; j++) W[k + c][j] += acc[c][j] * Z[j];
            }
            for (int j = 0; j < V; j++) Z[j] += gz[j];
        }
        for (int k = 0; k < D; k++)
            for (int j = 0; j < H; j++) w[((long)net * H + j) * D + k] = ((float *)W[k])[j];
        memcpy(z + (long)net * H, Z, H * sizeof(float));
    }
}

#endif
